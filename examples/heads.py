"""Change the number of classes of AlexNet, VGG, ResNet, SqueezeNet and DenseNet (finetune, replace the last layer).

Their heads are called classifier.6, classifier.6, fc, classifier.1 (a convolution) and classifier; who takes the wrong
name gets

    AttributeError: 'ResNet' object has no attribute 'classifier'

or a model that still has 1000 classes.  `ls.replace_head` finds the layer that gives the scores, in any model.
"""

import torch
from torchvision import models

import loadstone as ls

FAMILIES = {
    "AlexNet": models.alexnet,
    "VGG": models.vgg11,
    "ResNet": models.resnet18,
    "SqueezeNet": models.squeezenet1_1,
    "DenseNet": models.densenet121,
}

for family, factory in FAMILIES.items():
    model = factory(**{"init_weights": False} if family == "VGG" else {})  # in your code: weights="DEFAULT"
    head = ls.replace_head(model, num_classes=2)
    with torch.inference_mode():
        assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 2)
    print(f"{family:<10}  {head:<12}  {head.changes[0]}")
